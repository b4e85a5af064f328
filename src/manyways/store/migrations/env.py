"""What Alembic runs: the migrations, on the connection (and in the transaction) it is handed."""

from alembic import context

from manyways.store.tables import compatibility, metadata

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    render_as_batch=True,  # SQLite alters a table by copying it
)
with context.begin_transaction():
    context.run_migrations()
    newest = context.script.get_revision("head")
    connection.execute(compatibility.update().values(oldest=newest.module.compatible_from))
