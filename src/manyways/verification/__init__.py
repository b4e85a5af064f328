"""Finding out whether models do what is said of them: each is really asked.

run            many models, bounded, paced, resumable
examination    one model: which checks, in which order, and what follows from them
interview      one model, asked; what it costs is counted
checks/        a capability or a kind of model each
quality/       the set of tasks, their checkers, and the score
fingerprint    whether a model is still the same one
"""
