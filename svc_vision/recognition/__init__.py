"""From a picture to whom it shows: decoding, detection, alignment, embedding, search.

`model_contract` says what each model takes and gives, and what is known of its errors; `model_files` finds
its file; `execution` runs it. `images`, `detection` and `alignment` make of a frame the chips that models
take, `quality` judges them, `search` finds the nearest people. How near is near enough is rules/threshold.py.
"""
