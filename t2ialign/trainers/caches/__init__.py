"""Encoding pictures and captions once: in memory for one run, or in a folder for all of them.

The files, from what is asked to what is kept:

    plan      what is cached, and where
    latents   pictures
    texts     captions
    filling   making what is missing, by one process or many
    keys      what a row depends on
    store     rows by key, in shards
    need      what of it is there
    build     filling a folder before any run
    overview  what a folder of caches holds

`store` knows nothing of models, `keys` nothing of files.
"""
