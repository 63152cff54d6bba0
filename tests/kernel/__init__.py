# SPDX-License-Identifier: Apache-2.0
"""Tests that need root and BPF: the tracer against packets, on the running kernel."""
