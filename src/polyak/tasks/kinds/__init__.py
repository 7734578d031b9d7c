"""The built-in kinds of task, one file each, declared with `polyak.tasks.task_kind`."""
