"""HTTP words: paths, headers, status codes, and the exact JSON of the Autumn API. Decides nothing.

A request becomes values of `core`, the engine decides, and its answer becomes bytes. `wire/` does both translations
without Starlette; `routes.py` has one small method for each verb; `app.py` puts them on their paths.
"""
