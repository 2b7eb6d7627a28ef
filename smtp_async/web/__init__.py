"""Two pages for a browser: a mail catcher for development, and a console of a queue. They need the extra `[web]`.

Both are programs of Starlette that one process serves for few people, on loopback unless it is told otherwise. The
pages are plain files without a build step: they ask a JSON interface, and server-sent events tell them when to ask
again. Mail is hostile: what is shown of it is put into the pages as text, and HTML only into a frame without scripts,
without an origin and, until the reader wants it, without a network.
"""
