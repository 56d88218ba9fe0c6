"""Stress for stores: killed writers, failing disks, damaged files.

    python scripts/stress_stores.py --store nmslib --kills 200 --mutations 10000 --seed 0

`kills` and `faults` change a store at random, beside a model of what it should hold (`model`), and
stop it before and after each step (`points`) or at any moment. `corruption` opens copies of a store
whose files were damaged (`damage`). All of it happens in processes of their own (`workers`).
"""
