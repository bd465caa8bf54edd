"""Who is whose: brands, regions, stores, guides, members, their identities, and the guide each belongs to.

One folder for each capability: `directory`, `guide_code`, `binding`, `member`, `handover`, `care`; what they
decide stands in `rules`, whose heart is `rules/binding.py`. `guide_code/servicer_guide_code.py` shows one
request from end to end; `__main__.py` how the parts are put together. The contracts stand in
proto/daogou/members/v1.
"""
