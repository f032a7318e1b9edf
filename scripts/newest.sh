#!/bin/sh
# The newest version among the tags on standard input; release candidates are not versions to publish as latest.
grep -Ex 'v[0-9]+(\.[0-9]+)*' | sort -V | tail -n 1
