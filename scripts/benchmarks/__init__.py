"""What `scripts/bench` measures, a module a section.

A section is a function `measure(setup) -> Iterator[Figure]`; `scripts/bench` lists them. Whatever
is compared is measured in turns of a second or two, several rounds of them, and the medians
count: on a shared machine the speed changes from minute to minute, and a single long run of one
thing after the other compares the minutes.
"""
