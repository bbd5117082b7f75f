"""Bad manifests and what a person reads who wrote them, word for word.

The three tables hold whole documents, single files and lists of regions. `{dir}` is the manifest's
directory, in which a.img has 4096 bytes, b.img 8192, empty.img none, and fifo is a FIFO.
"""

from __future__ import annotations

DOCUMENTS: list[tuple[str | bytes, list[str]]] = [
    ("", ["disk.yaml:1:1: the manifest is empty; it begins with regionfs: 1"]),
    ("# only a comment\n", ["disk.yaml:1:1: the manifest is empty; it begins with regionfs: 1"]),
    ("- 1\n", ["disk.yaml:1:1: the manifest is a list; it is a mapping that begins with regionfs: 1"]),
    ("just text\n",
     ["disk.yaml:1:1: the manifest is a single value; it is a mapping that begins with regionfs: 1"]),
    ("a: [1\n", ["disk.yaml:2:1: not YAML: did not find expected ',' or ']'"]),
    ("a: b: c\n", ["disk.yaml:1:5: not YAML: mapping values are not allowed in this context"]),
    ("\ta: 1\n", ["disk.yaml:1:1: not YAML: found character that cannot start any token"]),
    ("regionfs: 1\nfiles: {}\n---\nregionfs: 1\n", ["disk.yaml:3:1: a second document; a manifest is one"]),
    ("regionfs: 1\n\0", ["disk.yaml:2:1: not text: the character U+0000"]),
    (b'regionfs: 1\nfiles: \xff', ["disk.yaml:2:8: not text: byte 0xff is not UTF-8"]),
    ("regionfs: 1\a", ["disk.yaml:1:12: not text: the character U+0007"]),
    ("\ud800", ["disk.yaml:1:1: not text: byte 0xed is not UTF-8"]),
    ("files: {}\n", ["disk.yaml:1:1: regionfs is missing; write regionfs: 1 first"]),
    ("regionfs: 2\nfiles: {}\n", ["disk.yaml:1:11: regionfs: version 1 is wanted here, found '2'"]),
    ("regionfs: 1\n", ["disk.yaml:1:1: files is missing"]),
    ("regionfs: yes\nfiles: []\n", [
        "disk.yaml:1:11: regionfs: version 1 is wanted here, found 'yes'",
        "disk.yaml:2:8: files: paths are wanted here, found a list",
    ]),
    ("regionfs: 1\nfiles:\n", ["disk.yaml:2:7: files: paths are wanted here, found nothing"]),
    ("regionfs: 1\nfile: {}\nfiles: {}\n", ["disk.yaml:2:1: file: unknown key; did you mean files?"]),
    ("regionfs: 1\nfiles: {}\nxyz: 1\n",
     ["disk.yaml:3:1: xyz: unknown key; known are regionfs, sources, files"]),
    ("regionfs: 1\nfiles: {}\nfiles: {}\n", ["disk.yaml:3:1: files: given twice; first on line 2"]),
    ("regionfs: 1\nfiles: {<<: {}}\n",
     ['disk.yaml:2:9: files["<<"]: merge keys are not allowed; write the keys out']),
    ("regionfs: 1\nfiles: {[a]: 1, {b: c}: 2}\n", [
        "disk.yaml:2:9: files: a key is a single word, not a list or a mapping",
        "disk.yaml:2:17: files: a key is a single word, not a list or a mapping",
    ]),
    ("regionfs: 1\nfiles: &x {}\n",
     ["disk.yaml:2:8: files: the anchor &x is not allowed; write the value out"]),
    ("regionfs: 1\nfiles: {f: {whole: *x}}\n",
     ["disk.yaml:2:20: files.f.whole: the alias *x is not allowed; write the value out"]),
    ("regionfs: 1\nfiles: !!map {}\n", ["disk.yaml:2:8: files: the tag !!map is not allowed"]),
    ("regionfs: !int 1\nfiles: {}\n", ["disk.yaml:1:11: regionfs: the tag !int is not allowed"]),
    ("regionfs: 1\nfiles: {a: {regions: [{data: {hex: [[1]]}}]}}\n",
     ["disk.yaml:2:36: files.a.regions[0].data.hex: nested deeper than the 6 levels of a manifest"]),
    ("regionfs: 1\nsources: [a]\nfiles: {}\n",
     ["disk.yaml:2:10: sources: names are wanted here, found a list"]),
    ("regionfs: 1\nsources: {x: {}}\nfiles: {}\n", ["disk.yaml:2:14: sources.x: path is missing"]),
    ("regionfs: 1\nsources: {x: }\nfiles: {}\n",
     ["disk.yaml:2:14: sources.x: a path is wanted here, found nothing"]),
    ("regionfs: 1\nsources: {x: [a]}\nfiles: {}\n",
     ["disk.yaml:2:14: sources.x: a mapping is wanted here, found a list"]),
    ("regionfs: 1\nsources: {x: {path: a.img, size: 8KiB}}\nfiles: {}\n",
     ["disk.yaml:2:34: sources.x.size: a.img has 4096 bytes, not 8192"]),
    ("regionfs: 1\nsources: {x: {path: a.img, loop: yes}}\nfiles: {}\n",
     ["disk.yaml:2:34: sources.x.loop: true or false is wanted here, in this spelling and without quotes, "
      "found 'yes'"]),
    ("regionfs: 1\nsources: {x: no.img}\nfiles: {f: {whole: x}, g: {whole: x}}\n",
     ["disk.yaml:2:14: sources.x: {dir}/no.img does not exist"]),
    ("regionfs: 1\nsources: {a/b: a.img, '': a.img}\nfiles: {}\n", [
        "disk.yaml:2:11: sources[\"a/b\"]: a source's name is a word without '/'",
        "disk.yaml:2:23: sources[\"\"]: a source's name is a word without '/'",
    ]),
    ("regionfs: 1\nsources: {x: {path: a.img, siz: 1}}\nfiles: {}\n",
     ["disk.yaml:2:28: sources.x.siz: unknown key; did you mean size?"]),
    ("regionfs: 1\nsources: {root: a.img}\nfiles: {f: {whole: rot}}\n",
     ["disk.yaml:3:20: files.f.whole: {dir}/rot does not exist; did you mean the source root?"]),
    ("regionfs: 1\nfiles: {a: {regions: []}, a/b: {regions: []}}\n",
     ["disk.yaml:2:9: files.a: this file is also the directory of a/b"]),
    ("regionfs: 1\nfiles:\n  f:\n    regions:\n    - a.img\n",
     ["disk.yaml:5:7: files.f.regions[0]: a mapping is wanted here, found 'a.img'"]),
]

REGIONS: list[tuple[tuple[str, ...], list[str]]] = [
    (("start: 0",), [
        "disk.yaml:5:7: files.f.regions[0]: a region has exactly one of source, data, hole, "
        "error; here none",
    ]),
    (("source: a.img, hole: true",), [
        "disk.yaml:5:7: files.f.regions[0]: a region has exactly one of source, data, hole, "
        "error; here source and hole",
    ]),
    (("sorce: a.img",), ["disk.yaml:5:8: files.f.regions[0].sorce: unknown key; did you mean source?"]),
    (("soource: a.img, lenght: 10",), [
        "disk.yaml:5:8: files.f.regions[0].soource: unknown key; did you mean source?",
        "disk.yaml:5:24: files.f.regions[0].lenght: unknown key; did you mean length?",
    ]),
    (("hole: true",), ["disk.yaml:5:7: files.f.regions[0]: a region of kind hole needs a length"]),
    (("error: true",), ["disk.yaml:5:7: files.f.regions[0]: a region of kind error needs a length"]),
    (("length: 0, hole: true",), ["disk.yaml:5:16: files.f.regions[0].length: 0 is less than 1"]),
    (("length: 1, hole: yes",), [
        "disk.yaml:5:25: files.f.regions[0].hole: true or false is wanted here, in this spelling "
        "and without quotes, found 'yes'",
    ]),
    (("length: 1, hole: false",),
     ["disk.yaml:5:25: files.f.regions[0].hole: write true, or leave the region out"]),
    (("length: 1, hole: 'true'",), [
        "disk.yaml:5:25: files.f.regions[0].hole: true or false is wanted here, in this spelling "
        "and without quotes, found 'true'",
    ]),
    (("length: 1, error: [true]",), [
        "disk.yaml:5:26: files.f.regions[0].error: true or false is wanted here, in this "
        "spelling and without quotes, found a list",
    ]),
    (("length: 1, hole: true, over: 1",), [
        "disk.yaml:5:37: files.f.regions[0].over: true or false is wanted here, in this spelling "
        "and without quotes, found '1'",
    ]),
    (("length: 1, hole: true, offset: 0, access: ro",), [
        "disk.yaml:5:39: files.f.regions[0].offset: a region of kind hole has no offset",
        "disk.yaml:5:50: files.f.regions[0].access: a region of kind hole has no access",
    ]),
    (("data: {text: a}, access: rw",),
     ["disk.yaml:5:33: files.f.regions[0].access: a region of kind data has no access"]),
    (("source: a.img, length: 4097",),
     ["disk.yaml:5:31: files.f.regions[0].length: 4097 reaches past the end of a.img (4096)"]),
    (("source: a.img, offset: 1, length: 4096",),
     ["disk.yaml:5:42: files.f.regions[0].length: 4097 reaches past the end of a.img (4096)"]),
    (("source: a.img, offset: 4096",),
     ["disk.yaml:5:31: files.f.regions[0].offset: 4096 is at or past the end of a.img (4096)"]),
    (("source: empty.img",), ["disk.yaml:5:16: files.f.regions[0].source: empty.img is empty"]),
    (("source: a.img, start: 9223372036854775807",), [
        "disk.yaml:5:7: files.f.regions[0]: it would end at 9223372036854779903, after "
        "9223372036854775807",
    ]),
    (("start: 0, source: a.img, align: 1",),
     ["disk.yaml:5:40: files.f.regions[0].align: a region with a start has no align"]),
    (("source: a.img, align: 0",), ["disk.yaml:5:30: files.f.regions[0].align: 0 is less than 1"]),
    (("source: a.img", "start: 4095, source: b.img"), [
        "disk.yaml:6:7: files.f.regions[1]: [4095, 12287) overlaps regions[0] [0, 4096); say "
        "over: true to cover it",
    ]),
    (("source: a.img, start: 4096", "source: b.img, start: 0"), [
        "disk.yaml:6:7: files.f.regions[1]: [0, 8192) overlaps regions[0] [4096, 8192); say "
        "over: true to cover it",
    ]),
    (("source: a.img",
      "over: false, start: 10, length: 1, hole: true",
      "start: 10, length: 1, error: true, over: true"), [
        "disk.yaml:6:7: files.f.regions[1]: [10, 11) overlaps regions[0] [0, 4096); say over: "
        "true to cover it",
    ]),
    (("source: no.img", "source: no.img", "source: no.img, access: rw"),
     ["disk.yaml:5:16: files.f.regions[0].source: {dir}/no.img does not exist"]),
    (("source: fifo",), [
        "disk.yaml:5:16: files.f.regions[0].source: {dir}/fifo is a FIFO; a source is a regular "
        "file or a block device",
    ]),
    (("source: .",), [
        "disk.yaml:5:16: files.f.regions[0].source: {dir} is a directory; a source is a regular "
        "file or a block device",
    ]),
    (("source: /dev/null",), [
        "disk.yaml:5:16: files.f.regions[0].source: /dev/null is a character device; a source is "
        "a regular file or a block device",
    ]),
    (("source: 'a\\0.img'",), ["disk.yaml:5:16: files.f.regions[0].source: {dir}/a\\0.img does not exist"]),
    (('source: "a\\0.img"',),
     ["disk.yaml:5:16: files.f.regions[0].source: a path cannot hold a NUL character"]),
    (("data: text",), ["disk.yaml:5:14: files.f.regions[0].data: a mapping is wanted here, found 'text'"]),
    (("data: {}",), [
        "disk.yaml:5:14: files.f.regions[0].data: data has exactly one of hex, base64, text, "
        "file; here none",
    ]),
    (("data: {hex: ff, text: a}",), [
        "disk.yaml:5:14: files.f.regions[0].data: data has exactly one of hex, base64, text, "
        "file; here hex and text",
    ]),
    (("data: {hex: f}",),
     ["disk.yaml:5:20: files.f.regions[0].data.hex: not hex: two digits 0-9 a-f for each byte"]),
    (("data: {hex: 1234}",), [
        "disk.yaml:5:20: files.f.regions[0].data.hex: a string is wanted here, but YAML reads "
        "'1234' as a number; write \"1234\"",
    ]),
    (("data: {hex: xy}",),
     ["disk.yaml:5:20: files.f.regions[0].data.hex: not hex: two digits 0-9 a-f for each byte"]),
    (("data: {base64: AAE}",),
     ["disk.yaml:5:23: files.f.regions[0].data.base64: not base64: incorrect padding"]),
    (("data: {base64: '-_-_'}",),
     ["disk.yaml:5:23: files.f.regions[0].data.base64: not base64: only base64 data is allowed"]),
    (("data: {text: ''}",), ["disk.yaml:5:21: files.f.regions[0].data.text: there are no bytes"]),
    (("data: {text: 12}",), [
        "disk.yaml:5:21: files.f.regions[0].data.text: a string is wanted here, but YAML reads "
        "'12' as a number; write \"12\"",
    ]),
    (("data: {text: null}",), [
        "disk.yaml:5:21: files.f.regions[0].data.text: a string is wanted here, but YAML reads "
        "'null' as no value; write \"null\"",
    ]),
    (("data: {file: no.txt}",),
     ["disk.yaml:5:21: files.f.regions[0].data.file: {dir}/no.txt does not exist"]),
    (("data: {file: empty.img}",), ["disk.yaml:5:21: files.f.regions[0].data.file: there are no bytes"]),
    (("data: {text: abc}, length: 4",),
     ["disk.yaml:5:35: files.f.regions[0].length: 4 reaches past the end of the data (3)"]),
    (("data: {text: abc}, offset: 3",),
     ["disk.yaml:5:35: files.f.regions[0].offset: 3 is at or past the end of the data (3)"]),
    (("data: {txt: abc}",),
     ["disk.yaml:5:15: files.f.regions[0].data.txt: unknown key; did you mean text?"]),
    (("start: x", "length: 10, hole: true, align: y"), [
        "disk.yaml:5:7: files.f.regions[0]: a region has exactly one of source, data, hole, "
        "error; here none",
        "disk.yaml:5:15: files.f.regions[0].start: 'x' is not a number with a unit such as 4096, "
        "64KiB, 10MB, 8s or 0x1000",
        "disk.yaml:6:39: files.f.regions[1].align: 'y' is not a number with a unit such as 4096, "
        "64KiB, 10MB, 8s or 0x1000",
    ]),
]

FILES: list[tuple[str, list[str]]] = [
    ("/f: {regions: []}",
     ["disk.yaml:3:3: files[\"/f\"]: a path inside the mount does not begin with '/'"]),
    ("a//b: {regions: []}",
     ["disk.yaml:3:3: files[\"a//b\"]: a path inside the mount has no empty, '.' or '..' part"]),
    ("../a: {regions: []}",
     ["disk.yaml:3:3: files[\"../a\"]: a path inside the mount has no empty, '.' or '..' part"]),
    ("a/.: {regions: []}",
     ["disk.yaml:3:3: files[\"a/.\"]: a path inside the mount has no empty, '.' or '..' part"]),
    ("'': {regions: []}",
     ["disk.yaml:3:3: files[\"\"]: a path inside the mount has no empty, '.' or '..' part"]),
    ('"a\\0b": {regions: []}', ['disk.yaml:3:3: files["a\\x00b"]: a path cannot hold a NUL character']),
    ("x" * 256 + ": {regions: []}", [
        "disk.yaml:3:3: files.xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...: a "
        "part of this path is longer than 255 bytes",
    ]),
    ("f: {}", ["disk.yaml:3:6: files.f: a file has either regions or whole; here neither"]),
    ("f: {regions: [], whole: a.img}",
     ["disk.yaml:3:6: files.f: a file has either regions or whole; here both"]),
    ("f: {regions: {}}", ["disk.yaml:3:16: files.f.regions: table is missing; regions are a list, or {table: FILE}"]),
    ("f: {regions: }", ["disk.yaml:3:16: files.f.regions: a list is wanted here, found nothing"]),
    ("f: 7", ["disk.yaml:3:6: files.f: a mapping is wanted here, found '7'"]),
    ("f: {whole: a.img, size: 4096}", ["disk.yaml:3:27: files.f.size: a whole file has its source's size"]),
    ("f: {whole: a.img, access: wr}",
     ["disk.yaml:3:29: files.f.access: ro or rw is wanted here, found 'wr'"]),
    ("f: {whole: 12}", [
        "disk.yaml:3:14: files.f.whole: a path is wanted here, but YAML reads '12' as a number; "
        'write "12"',
    ]),
    ("f: {whole: ''}", ["disk.yaml:3:14: files.f.whole: a path cannot be empty"]),
    ("f: {regions: [], access: rw}",
     ["disk.yaml:3:28: files.f.access: access is for whole or for a region"]),
    ("f: {regions: [], mode: 0644}", [
        "disk.yaml:3:26: files.f.mode: permissions are wanted here, octal and in quotes such as "
        "\"0644\", found '0644'",
    ]),
    ('f: {regions: [], mode: "4755"}', [
        "disk.yaml:3:26: files.f.mode: permissions are wanted here, octal and in quotes such as "
        "\"0644\", found '4755'",
    ]),
    ('f: {regions: [], mode: "rw-r--r--"}', [
        "disk.yaml:3:26: files.f.mode: permissions are wanted here, octal and in quotes such as "
        "\"0644\", found 'rw-r--r--'",
    ]),
    ("f: {size: 100, regions: [{source: a.img}]}",
     ["disk.yaml:3:13: files.f.size: 100 is less than 4096, where the regions end"]),
    ("f: {size: -1, regions: []}", ["disk.yaml:3:13: files.f.size: '-1' is negative"]),
    ("f: {size: 8EiB, regions: []}", [
        "disk.yaml:3:13: files.f.size: '8EiB' has the unknown unit 'EiB'; units are KiB MiB GiB "
        "TiB, KB MB GB TB and s (512-byte sectors)",
    ]),
    ("f: {size: 9223372036854775808, regions: []}",
     ["disk.yaml:3:13: files.f.size: '9223372036854775808' is more than 9223372036854775807"]),
    ("f: {size: 64kib, regions: []}",
     ["disk.yaml:3:13: files.f.size: '64kib' has the unknown unit 'kib'; did you mean KiB?"]),
    ("f: {size: 010, regions: []}",
     ["disk.yaml:3:13: files.f.size: '010' starts with 0: octal or decimal? write '10' or 0x..."]),
    ("f: {size: 1:30, regions: []}", [
        "disk.yaml:3:13: files.f.size: '1:30' is not a number with a unit such as 4096, 64KiB, "
        "10MB, 8s or 0x1000; write minutes or seconds as plain numbers",
    ]),
    ("f: {size: yes, regions: []}", [
        "disk.yaml:3:13: files.f.size: 'yes' is not a number with a unit such as 4096, 64KiB, "
        "10MB, 8s or 0x1000",
    ]),
    ("f: {size: ~, regions: []}", [
        "disk.yaml:3:13: files.f.size: '~' is not a number with a unit such as 4096, 64KiB, "
        "10MB, 8s or 0x1000",
    ]),
    ("f: {size: , regions: []}",
     ["disk.yaml:3:13: files.f.size: a number of bytes is wanted here, found nothing"]),
    ("f: {size: 0o17, regions: []}", [
        "disk.yaml:3:13: files.f.size: '0o17' is not a number with a unit such as 4096, 64KiB, "
        "10MB, 8s or 0x1000; write 15",
    ]),
    ("f: {size: 1_000, regions: []}", [
        "disk.yaml:3:13: files.f.size: '1_000' is not a number with a unit such as 4096, 64KiB, "
        "10MB, 8s or 0x1000; write 1000",
    ]),
    ("f: {size: 1e3, regions: []}", [
        "disk.yaml:3:13: files.f.size: '1e3' is not a number with a unit such as 4096, 64KiB, "
        "10MB, 8s or 0x1000; write 1000",
    ]),
    ("f: {size: 1.5, regions: []}", ["disk.yaml:3:13: files.f.size: '1.5' is not a whole number of bytes"]),
    ("f: {size: [1], regions: []}",
     ["disk.yaml:3:13: files.f.size: a number of bytes is wanted here, found a list"]),
    ("f: {size: {a: 1}, regions: []}",
     ["disk.yaml:3:13: files.f.size: a number of bytes is wanted here, found a mapping"]),
    ("f: {size: .inf, regions: []}", [
        "disk.yaml:3:13: files.f.size: '.inf' is not a number with a unit such as 4096, 64KiB, "
        "10MB, 8s or 0x1000",
    ]),
    ("f: {size: '4 096', regions: []}", [
        "disk.yaml:3:13: files.f.size: '4 096' is not a number with a unit such as 4096, 64KiB, "
        "10MB, 8s or 0x1000",
    ]),
    ("f: {size: 1234567890123456789012345678901234567890123456789012345678901234567890, regions: []}", [
        "disk.yaml:3:13: files.f.size: '1234567890123456789012345678901234567...' has more than "
        "20 digits; the largest number is 9223372036854775807",
    ]),
]
