"""``flambeau demo``: LeNet-5 learns handwritten digits.

`digits.py` the pictures · `training.py` the training loop, as a user would write it ·
`progress.py` the bar · `picture.py` the drawing at the end · `command.py` the command line.
"""
