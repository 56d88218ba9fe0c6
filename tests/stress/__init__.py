"""Stress tests for stores: killed writers, failing disks, damaged files.

    python -m tests.stress --store nmslib --kills 200 --mutations 10000 --seed 0

`kills` and `faults` apply random changes to a store and to a model of its content (`store_model`),
and interrupt them before and after each step (`points`) or at any moment. `corruption` opens copies
of a store whose files were damaged (`damage`). Everything runs in child processes (`workers`).
"""
