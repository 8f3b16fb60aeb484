"""The live page of `autoprune watch`: it reads the files of runs, and with `--control` it stops and resumes searches.

`run_reader` follows the files of one run, `folder` finds runs, `run_page`, `comparison_page` and `folder_page` draw
them, `control` stops and resumes, `guard` decides who may ask, and `server` serves all of it.
"""
