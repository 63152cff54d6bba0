# SPDX-License-Identifier: Apache-2.0
"""Packets as truth: networks, traffic, captures, and a judge that never saw the tracer."""
