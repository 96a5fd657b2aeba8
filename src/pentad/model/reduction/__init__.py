"""Token reducers: shorter texts in place of long ones, for a goal. What is lost is declared and counted."""
