# SPDX-License-Identifier: Apache-2.0
"""Dashboards for Grafana and rules for Prometheus, held to the declarations of metrics."""
