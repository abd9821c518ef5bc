"""The sentiment analyzer.

`feed` fetches a feed, `articles` reads it, `assets` finds what a headline speaks of, `lexicon` scores its tone,
`scores` keeps what is recent and weighs it, `service` wires them.
"""
