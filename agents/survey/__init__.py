"""What learners try on a task, live, added to a survey of it: ``python -m agents.survey``."""
