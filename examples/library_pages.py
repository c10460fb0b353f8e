"""Write help pages of Python's standard library as .txt files: documents to try a search on."""

import argparse
import importlib
import inspect
import pydoc
from pathlib import Path

MODULES = """
argparse array ast asyncio base64 bisect calendar cmath codecs collections
concurrent.futures configparser contextlib copy csv ctypes dataclasses datetime decimal
difflib dis doctest email.message enum fileinput fnmatch fractions ftplib functools getpass
gettext glob gzip hashlib heapq hmac html html.parser http.client http.cookies http.server
imaplib importlib inspect io ipaddress itertools json linecache locale logging
logging.handlers lzma mailbox math mimetypes mmap multiprocessing numbers operator os
os.path pathlib pickle platform plistlib poplib pprint profile queue random re reprlib sched
secrets select selectors shelve shlex shutil signal smtplib socket socketserver sqlite3 ssl
stat statistics string struct subprocess symtable sys sysconfig tarfile tempfile textwrap
threading time timeit token tokenize trace traceback types typing unittest unittest.mock
urllib.parse urllib.request urllib.robotparser uuid warnings wave weakref xml.dom.minidom
xml.etree.ElementTree xmlrpc.client zipfile zipimport zlib zoneinfo
"""


def pages():
    """Name and text of the help page of each module, and of its classes and functions."""
    for name in MODULES.split():
        module = importlib.import_module(name)
        yield name, f"{name}\n\n{inspect.getdoc(module) or ''}"
        for part, value in sorted(vars(module).items()):
            public = not part.startswith("_") and getattr(value, "__module__", "") == name
            if public and callable(value) and len(inspect.getdoc(value) or "") > 120:
                yield f"{name}.{part}", pydoc.plain(pydoc.render_doc(value, "%s"))[:4000]


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("out", type=Path, nargs="?", default=Path("pages"))
parser.add_argument("--count", type=int, default=800)
arguments = parser.parse_args()
arguments.out.mkdir(parents=True, exist_ok=True)
everything = list(pages())
step = max(1, len(everything) // arguments.count)
for title, text in everything[::step][: arguments.count]:
    (arguments.out / f"{title}.txt").write_text(text, encoding="utf-8")
print(f"{len(everything[::step][: arguments.count])} pages in {arguments.out}")
