"""Training a scorer on the engine: `t2ialign train reward`.

Law of this room: what is trained is a CLIP and at most a head on its features; the loss looks at score differences
alone; what is measured is measured on prompts or users that were not trained on, with calibration and interval.
"""
