# SPDX-License-Identifier: Apache-2.0
"""What tracing costs: a load generator, meters, and a runner that compares contenders."""
