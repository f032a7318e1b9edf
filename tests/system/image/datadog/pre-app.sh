#!/bin/bash
service cron start
service agent start
