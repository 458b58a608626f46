"""Culture: where a model's pictures come from when nobody says, and how well it knows what comes from where.

Law of this room: a label that nobody could give is null, counted, and never filled in; every figure carries its n.
After CUBE (Kannan et al., 'Beyond Aesthetics: Cultural Competence in Text-to-Image Models', arXiv 2407.06863).

* `cube`, `cspace`: CUBE-1K and CUBE-CSpace, read as they are published
* `countries`: one country by all its names, and its continent
* `geotag`: what a picture shows and where that is from; by `chat_tagger`, `clip_tagger` or, in the mini-world,
  `flag_tagger`
* `kernels`, `chunks`, `diversity`, `compare`: cultural diversity, its intervals, and one model against another
* `retrieval`, `contrast`, `ratings`, `awareness`, `pooling`: cultural awareness by country and domain
* `plot`: where pictures come from, as a picture
"""
