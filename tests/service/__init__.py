# SPDX-License-Identifier: Apache-2.0
"""The unit, run by a real systemd."""
