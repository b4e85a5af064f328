"""What a model can be asked to show, a module a kind: each check is a coroutine that takes an
`Interview` and gives a `Finding`."""
