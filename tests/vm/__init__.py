# SPDX-License-Identifier: Apache-2.0
"""fourwave inside virtual machines that run other kernels than this host's."""
