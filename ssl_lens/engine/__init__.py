"""The teacher-student pretraining loop and what it needs."""
