"""Studies: many runs by one plan, compared with one another. The whole paper is one of them.

`plan.py` says what a plan is and how far it has come, `study.py` carries it out. The other modules make plans.
"""
