"""Use cases, one file per noun: authorise, check, plan, start an operation."""
