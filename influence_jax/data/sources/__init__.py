"""Where datasets come from, a file each, and the readers that several of them share.

Sources: `embedded` (clip art, WordNet), `cifar10`, `nq_open`, `npz`, `jsonl`. Readers:
`numpy_files`, `image_arrays`, `tfds_records`. Nothing that is read can run code.
"""
