"""Do the negatives help? Tables of cells, each a tuned base or a tuned method, judged alike.

`tables` says what there is, `cells` what a cell is, `search` which runs it needs, `work` does them,
`store` keeps them, `report` tells them. The protocol is docs/quality/protocol.md.
"""
