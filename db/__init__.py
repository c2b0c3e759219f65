"""The catalog: one SQL database that holds every subject and every job. Imports nothing of ours."""
