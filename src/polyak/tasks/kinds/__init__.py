"""One file a kind of task; a file's name, with dashes, is what descriptions call the kind.

Each has `read(table)`, which reads the keys that are the kind's own and returns a function from `Frame` to the task.
"""
