/* SPDX-License-Identifier: GPL-2.0 */
/* From a descriptor of the running task to its socket. */
#ifndef FOURWAVE_DESCRIPTOR_H
#define FOURWAVE_DESCRIPTOR_H

/* What the descriptor of the running task stands for, if it is a socket: no other
 * file's private data points back at the file. */
static __always_inline struct sock *socket_of(struct task_struct *task, u32 descriptor)
{
	struct files_struct *files = task->files;
	struct fdtable *table = NULL;
	struct file *file = NULL;
	struct socket *socket = NULL;
	struct sock *sk = NULL;
	void *files_open = NULL, *back = NULL;
	u32 max = 0;

	bpf_probe_read_kernel(&table, sizeof(table), &files->fdt);
	bpf_probe_read_kernel(&max, sizeof(max), &table->max_fds);
	bpf_probe_read_kernel(&files_open, sizeof(files_open), &table->fd);
	if (descriptor >= max ||
	    bpf_probe_read_kernel(&file, sizeof(file), files_open + descriptor * sizeof(file)))
		return NULL;
	bpf_probe_read_kernel(&socket, sizeof(socket), &file->private_data);
	bpf_probe_read_kernel(&back, sizeof(back), &socket->file);
	if (!file || back != file)
		return NULL;
	bpf_probe_read_kernel(&sk, sizeof(sk), &socket->sk);
	return sk;
}

#endif
