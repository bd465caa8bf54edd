"""Who is whose: brands, regions, stores, guides, members, their identities, and the guide each belongs to.

The heart is `rules/binding.py`. `servicer_guide_code.py` shows one request from end to end; `__main__.py` how
the parts are put together. The contracts stand in proto/daogou/members/v1.
"""
