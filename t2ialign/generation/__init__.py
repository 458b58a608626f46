"""Generation: seeds, batched sampling, image sets and grids.

Law of this room: the noise of an image is a function of (run seed, prompt id, sample number) alone,
so neither the batch size, nor the number of processes, nor the other prompts change a picture.
"""
