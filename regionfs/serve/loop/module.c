/* The Python module regionfs.serve._fast: see _fast.pyi. */
#include "loop.h"

#include <errno.h>

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
	int device;

	if (!PyArg_ParseTuple(args, "iw*w*w*", &device, &buffer, &reply, &turns))
		return NULL;
	if (buffer.len < LEAST_BUFFER || reply.len < LEAST_REPLY || turns.len != sizeof(struct turns)) {
		PyErr_SetString(PyExc_ValueError, "a buffer has the wrong size");
		goto out;
	}
	do {
		struct span request = {buffer.buf, buffer.len}, answer = {reply.buf, reply.len};

		Py_BEGIN_ALLOW_THREADS
		ended = loop_serve(&self->table, device, request, answer, turns.buf, &size);
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

static int append_counts(PyObject *list, uint64_t ino, const struct counts *counts)
{
	PyObject *row = Py_BuildValue("KKKKK", ino, counts->reads, counts->read_bytes, counts->writes,
				      counts->write_bytes);
	int failed = !row || PyList_Append(list, row);

	Py_XDECREF(row);
	return failed;
}

static PyObject *Table_harvest(Table *self, PyObject *Py_UNUSED(args))
{
	PyObject *list = PyList_New(0);

	for (int bucket = 0; list && bucket < BUCKETS; bucket++) {
		/* who adds and removes files has the interpreter's lock, as we have */
		for (struct file *file = self->table.buckets[bucket]; list && file; file = file->next) {
			struct counts counts = table_take_counts(&self->table, file);

			if ((counts.reads || counts.writes) && append_counts(list, file->ino, &counts))
				Py_CLEAR(list);
		}
	}
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
	PyObject *columns;
	int writable;
	long epoch;

	if (!file)
		return PyErr_NoMemory();
	if (!PyArg_ParseTuple(args, "lKLO!np", &epoch, &file->ino, &file->size, &PyTuple_Type, &columns, &file->handles,
			      &writable))
		goto failed;
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
	return PyBool_FromLong(table_use(&self->table, epoch, ino, target, fd));
}

static PyObject *Table_epoch(Table *self, void *Py_UNUSED(closure))
{
	return PyLong_FromLong(self->table.epoch);
}

static PyObject *Table_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(keywords))
{
	Table *self;
	long bound;

	if (!PyArg_ParseTuple(args, "l", &bound))
		return NULL;
	self = (Table *)type->tp_alloc(type, 0);
	if (self) {
		pthread_mutex_init(&self->table.lock, NULL);
		self->table.bound = bound;
	}
	return (PyObject *)self;
}

static void Table_dealloc(Table *self)
{
	/* whoever is in serve() has a reference, so nothing is in use */
	table_clear(&self->table);
	pthread_mutex_destroy(&self->table.lock);
	Py_TYPE(self)->tp_free(self);
}

static PyMethodDef methods[] = {
	{"serve", (PyCFunction)Table_serve, METH_VARARGS, NULL},
	{"harvest", (PyCFunction)Table_harvest, METH_NOARGS, NULL},
	{"clear", (PyCFunction)Table_clear, METH_NOARGS, NULL},
	{"learn", (PyCFunction)Table_learn, METH_VARARGS, NULL},
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
