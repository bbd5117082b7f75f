/* The Python module regionfs.serve._fast: see _fast.pyi. */
#include "loop.h"

#include <errno.h>
#include <string.h>

typedef struct {
	PyObject_HEAD
	struct table table;
} Table;

static PyObject *Table_serve(Table *self, PyObject *args)
{
	Py_buffer buffer, reply, turns;
	ssize_t size = 0;
	enum ended ended;
	PyObject *result = NULL;
	long long turn;
	int device;

	if (!PyArg_ParseTuple(args, "iw*w*w*L", &device, &buffer, &reply, &turns, &turn))
		return NULL;
	if (buffer.len < LEAST_BUFFER || reply.len < LEAST_REPLY || turns.len != sizeof(struct turns)) {
		PyErr_SetString(PyExc_ValueError, "a buffer has the wrong size");
		goto out;
	}
	do {
		struct span request = {buffer.buf, buffer.len}, answer = {reply.buf, reply.len};

		Py_BEGIN_ALLOW_THREADS
		ended = loop_serve(&self->table, device, request, answer, turns.buf, turn, &size);
		Py_END_ALLOW_THREADS
	} while (ended == FAILED && errno == EINTR && PyErr_CheckSignals() == 0);
	if (ended == REQUEST || ended == WAITING)
		result = PyLong_FromSsize_t(ended == WAITING ? -size : size);
	else if (ended == UNMOUNTED)
		result = PyLong_FromLong(0);
	else if (ended == TURNED)
		result = Py_NewRef(Py_None);
	else if (!PyErr_Occurred())
		PyErr_SetFromErrno(PyExc_OSError);
out:
	PyBuffer_Release(&buffer);
	PyBuffer_Release(&reply);
	PyBuffer_Release(&turns);
	return result;
}

static PyObject *Table_harvest(Table *self, PyObject *Py_UNUSED(args))
{
	struct row *rows;
	Py_ssize_t count = table_harvest(&self->table, &rows);
	PyObject *list;

	if (count < 0)
		return PyErr_NoMemory();
	list = PyList_New(count);
	for (Py_ssize_t index = 0; index < count; index++) {
		const struct counts *counts = &rows[index].counts;
		PyObject *row = list ? Py_BuildValue("OKKKKKK", rows[index].counters, counts->opens, counts->backed, counts->reads,
						     counts->read_bytes, counts->writes, counts->write_bytes) : NULL;

		if (row)
			PyList_SET_ITEM(list, index, row);
		else
			Py_CLEAR(list);
		Py_DECREF(rows[index].counters);
	}
	free(rows);
	return list;
}

static PyObject *Table_clear(Table *self, PyObject *Py_UNUSED(args))
{
	table_clear(&self->table);
	Py_RETURN_NONE;
}

static int take_columns(struct file *file, PyObject *columns)
{
	static const Py_ssize_t items[COLUMNS] = {8, 8, 8, 4, 1};

	if (PyTuple_GET_SIZE(columns) != COLUMNS) {
		PyErr_SetString(PyExc_ValueError, "five columns or none");
		return -1;
	}
	for (int index = 0; index < COLUMNS; index++) {
		Py_buffer *view = &file->buffers[index];

		if (PyObject_GetBuffer(PyTuple_GET_ITEM(columns, index), view, PyBUF_CONTIG_RO))
			return -1;
		if (index == 0)
			file->count = view->len / items[0];
		if (view->len != file->count * items[index]) {
			PyErr_SetString(PyExc_ValueError, "columns differ in length");
			return -1;
		}
	}
	file->starts = file->buffers[0].buf;
	file->ends = file->buffers[1].buf;
	file->shifts = file->buffers[2].buf;
	file->targets = file->buffers[3].buf;
	file->rw = file->buffers[4].buf;
	return 0;
}

static PyObject *Table_learn(Table *self, PyObject *args)
{
	struct file *file = calloc(1, sizeof *file);
	PyObject *columns, *counters;
	int writable;
	long epoch;

	if (!file)
		return PyErr_NoMemory();
	if (!PyArg_ParseTuple(args, "lKLO!npO", &epoch, &file->ino, &file->size, &PyTuple_Type, &columns,
			      &file->handles, &writable, &counters))
		goto failed;
	file->counters = Py_NewRef(counters);
	file->writable = writable;
	file->whole = PyTuple_GET_SIZE(columns) == 0;
	if (!file->whole && take_columns(file, columns))
		goto failed;
	file->handle = calloc(file->handles + 1, sizeof *file->handle);
	if (!file->handle) {
		PyErr_NoMemory();
		goto failed;
	}
	if (!table_add(&self->table, epoch, file))
		table_free_file(file);
	Py_RETURN_NONE;
failed:
	table_free_file(file);
	return NULL;
}

static int take_source(struct source *source, PyObject *facts)
{
	PyObject *path;

	if (!PyArg_ParseTuple(facts, "O!KKKKKLLLlLl", &PyBytes_Type, &path, &source->device, &source->inode, &source->mode,
			      &source->uid, &source->gid, &source->size, &source->blocks,
			      &source->mtime.tv_sec, &source->mtime.tv_nsec, &source->ctime.tv_sec, &source->ctime.tv_nsec))
		return -1;
	source->path = strdup(PyBytes_AS_STRING(path));
	return source->path ? 0 : (PyErr_NoMemory(), -1);
}

/* NULL with an exception when no slot can begin at this word. */
static volatile uint64_t *slot_at(const Table *self, Py_ssize_t at)
{
	const struct ledger *ledger = &self->table.ledger;

	if (at > 0 && (uint64_t)at + ENTRY_WORDS <= ledger->count)
		return ledger->words + at;
	PyErr_SetString(PyExc_ValueError, "no such slot");
	return NULL;
}

/* (entry, live, parent, name); nothing of it is taken when the entry is empty. */
static int take_shown(struct sources *sources, PyObject *shown)
{
	Py_ssize_t size;
	const char *entry, *name;
	int live;

	if (!PyArg_ParseTuple(shown, "y#pKy", &entry, &size, &live, &sources->parent, &name))
		return -1;
	if (!size)
		return 0;
	if (size != sizeof sources->entry)
		return PyErr_SetString(PyExc_ValueError, "the entry has the wrong size"), -1;
	memcpy(&sources->entry, entry, size);
	sources->live = live;
	sources->name = *name ? strdup(name) : NULL;
	return *name && !sources->name ? (PyErr_NoMemory(), -1) : 0;
}

static PyObject *Table_open(Table *self, PyObject *args)
{
	struct sources *sources;
	unsigned long long ino;
	PyObject *facts, *shown;
	Py_ssize_t count, at = -1;
	long long made = 0;
	long epoch;
	bool failed;

	if (!PyArg_ParseTuple(args, "lKO!O!|nL", &epoch, &ino, &PyTuple_Type, &facts, &PyTuple_Type, &shown, &at, &made))
		return NULL;
	if (at >= 0 && (PyTuple_GET_SIZE(facts) != 1 || !slot_at(self, at)))
		return PyErr_Occurred() ? NULL : PyErr_Format(PyExc_ValueError, "a backing file has one source");
	count = PyTuple_GET_SIZE(facts);
	sources = calloc(1, sizeof *sources + count * sizeof sources->source[0]);
	if (!sources)
		return PyErr_NoMemory();
	sources->count = count;
	sources->ino = ino;
	failed = take_shown(sources, shown);
	sources->slot = at < 0 ? NULL : slot_at(self, at);
	sources->made = made;
	for (Py_ssize_t index = 0; !failed && index < count; index++)
		failed = take_source(&sources->source[index], PyTuple_GET_ITEM(facts, index));
	table_open(&self->table, failed ? -1 : epoch, sources);
	if (failed)
		return NULL;
	Py_RETURN_NONE;
}

static PyObject *Table_share(Table *self, PyObject *args)
{
	struct ledger *ledger = &self->table.ledger;
	Py_buffer words;
	unsigned long journal;

	if (!PyArg_ParseTuple(args, "w*k", &words, &journal))
		return NULL;
	if (ledger->words || !journal || words.len / 8 <= (Py_ssize_t)(1 + journal * (1 + ENTRY_WORDS))) {
		PyBuffer_Release(&words);
		PyErr_SetString(PyExc_ValueError, "one ledger, with a journal and slots");
		return NULL;
	}
	self->table.shared = words;
	*ledger = (struct ledger){words.buf, words.len / 8, journal};
	Py_RETURN_NONE;
}

static PyObject *Table_write(Table *self, PyObject *args)
{
	volatile uint64_t *slot;
	unsigned long long unique;
	struct entry entry;
	Py_ssize_t at;

	if (!PyArg_ParseTuple(args, "KnKKKK", &unique, &at, &entry.ino, &entry.backing_id, &entry.handles, &entry.stamp))
		return NULL;
	if (!(slot = slot_at(self, at)))
		return NULL;
	table_write(&self->table, unique, slot, &entry);
	Py_RETURN_NONE;
}

static PyObject *Table_tasks(Table *self, PyObject *args)
{
	struct underway *underway = &self->table.underway;
	Py_buffer words;

	if (!PyArg_ParseTuple(args, "w*", &words))
		return NULL;
	if (underway->tasks || !words.len || words.len % sizeof(struct task)) {
		PyBuffer_Release(&words);
		return PyErr_Format(PyExc_ValueError, "whole tasks, and once");
	}
	self->table.tasks = words;
	underway->tasks = words.buf;
	underway->used = underway->count = words.len / sizeof(struct task);
	Py_RETURN_NONE;
}

static PyObject *Table_begin(Table *self, PyObject *args)
{
	unsigned long long unique, ino, start, end;
	struct task *task;

	if (!PyArg_ParseTuple(args, "KKKK", &unique, &ino, &start, &end))
		return NULL;
	task = table_begin(&self->table, unique, ino, start, end);
	return PyLong_FromSsize_t(task ? task - self->table.underway.tasks : -1);
}

static PyObject *Table_overtake(Table *self, PyObject *args)
{
	unsigned long long ino, start, end;
	Py_ssize_t index;
	int waits;

	if (!PyArg_ParseTuple(args, "nKKKp", &index, &ino, &start, &end, &waits))
		return NULL;
	return PyBool_FromLong(table_overtake(&self->table, index < 0 ? NULL : self->table.underway.tasks + index, ino,
					      start, end, waits));
}

static PyObject *Table_take_back(Table *self, PyObject *args)
{
	unsigned long long ino;

	if (!PyArg_ParseTuple(args, "K", &ino))
		return NULL;
	return PyLong_FromLongLong(table_take_back(&self->table, ino));
}

static PyObject *Table_hide(Table *self, PyObject *args)
{
	unsigned long long ino;

	if (!PyArg_ParseTuple(args, "K", &ino))
		return NULL;
	table_hide(&self->table, ino);
	Py_RETURN_NONE;
}

static PyObject *Table_knows(Table *self, PyObject *args)
{
	unsigned long long ino;

	if (!PyArg_ParseTuple(args, "K", &ino))
		return NULL;
	return PyBool_FromLong(table_knows(&self->table, ino));
}

static PyObject *Table_use(Table *self, PyObject *args)
{
	unsigned long long ino;
	Py_ssize_t target;
	long epoch;
	int fd;

	if (!PyArg_ParseTuple(args, "lKni", &epoch, &ino, &target, &fd))
		return NULL;
	table_use(&self->table, epoch, ino, target, fd);
	Py_RETURN_NONE;
}

static PyObject *Table_epoch(Table *self, void *Py_UNUSED(closure))
{
	return PyLong_FromLong(self->table.epoch);
}

static PyObject *Table_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(keywords))
{
	Table *self;
	long long spin;
	long bound;
	int idle;

	if (!PyArg_ParseTuple(args, "lLi", &bound, &spin, &idle))
		return NULL;
	self = (Table *)type->tp_alloc(type, 0);
	if (self) {
		pthread_mutex_init(&self->table.lock, NULL);
		self->table.bound = bound;
		self->table.spin = spin;
		self->table.idle = idle;
	}
	return (PyObject *)self;
}

static void Table_dealloc(Table *self)
{
	struct file **forgotten = &self->table.buckets[BUCKETS], *file;

	/* whoever is in serve() has a reference, so nothing is in use */
	table_clear(&self->table);
	while ((file = *forgotten)) {
		*forgotten = file->next;
		table_free_file(file);
	}
	bulk_close(&self->table.bulk);
	PyBuffer_Release(&self->table.shared);
	PyBuffer_Release(&self->table.tasks);
	pthread_mutex_destroy(&self->table.lock);
	Py_TYPE(self)->tp_free(self);
}

static PyMethodDef methods[] = {
	{"serve", (PyCFunction)Table_serve, METH_VARARGS, NULL},
	{"harvest", (PyCFunction)Table_harvest, METH_NOARGS, NULL},
	{"clear", (PyCFunction)Table_clear, METH_NOARGS, NULL},
	{"learn", (PyCFunction)Table_learn, METH_VARARGS, NULL},
	{"open", (PyCFunction)Table_open, METH_VARARGS, NULL},
	{"share", (PyCFunction)Table_share, METH_VARARGS, NULL},
	{"write", (PyCFunction)Table_write, METH_VARARGS, NULL},
	{"tasks", (PyCFunction)Table_tasks, METH_VARARGS, NULL},
	{"begin", (PyCFunction)Table_begin, METH_VARARGS, NULL},
	{"overtake", (PyCFunction)Table_overtake, METH_VARARGS, NULL},
	{"take_back", (PyCFunction)Table_take_back, METH_VARARGS, NULL},
	{"hide", (PyCFunction)Table_hide, METH_VARARGS, NULL},
	{"knows", (PyCFunction)Table_knows, METH_VARARGS, NULL},
	{"use", (PyCFunction)Table_use, METH_VARARGS, NULL},
	{NULL},
};

static PyGetSetDef attributes[] = {
	{"epoch", (getter)Table_epoch, NULL, NULL, NULL},
	{NULL},
};

static PyTypeObject TableType = {
	PyVarObject_HEAD_INIT(NULL, 0)
	.tp_name = "regionfs.serve._fast.Table",
	.tp_basicsize = sizeof(Table),
	.tp_flags = Py_TPFLAGS_DEFAULT,
	.tp_new = Table_new,
	.tp_dealloc = (destructor)Table_dealloc,
	.tp_methods = methods,
	.tp_getset = attributes,
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "regionfs.serve._fast", NULL, -1, NULL, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__fast(void)
{
	PyObject *made;

	if (PyType_Ready(&TableType))
		return NULL;
	made = PyModule_Create(&module);
	if (made && PyModule_AddObjectRef(made, "Table", (PyObject *)&TableType)) {
		Py_DECREF(made);
		return NULL;
	}
	return made;
}
