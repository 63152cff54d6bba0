# SPDX-License-Identifier: Apache-2.0
"""Every kind of close, made on purpose: `actor` makes them, `run` traces and checks them."""
