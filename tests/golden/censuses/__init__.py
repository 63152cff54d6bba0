# SPDX-License-Identifier: Apache-2.0
"""Recorded censuses of leaks, full queues and used up ports, for detectors to judge."""
