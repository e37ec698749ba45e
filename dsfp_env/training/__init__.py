"""How networks learn: the short distillation of an evaluation, and long trainings."""
