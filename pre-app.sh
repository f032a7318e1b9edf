#!/bin/sh
# Runs in the container before the launcher. Replace it in your Dockerfile:
#
#     COPY --chmod=755 ./pre-app.sh /app/
#
# Start what your bot needs beside it (an agent, a tunnel), or export variables for it:
#
#     service datadog-agent start
#     export REGION=eu-west-1
#
# What it exports reaches the bot, unless it ends by exec. If it fails, the container stops.
