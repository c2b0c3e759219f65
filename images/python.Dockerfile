# An interpreter of the build machine on the base. It was moved, so the loader is told where its library is now.
ARG BASE
FROM ${BASE}
ARG PREFIX
ARG VERSION
COPY python ${PREFIX}
RUN echo ${PREFIX}/lib > /etc/ld.so.conf.d/python-${VERSION}.conf && ldconfig \
    && ${PREFIX}/bin/python${VERSION} -E -s -c 'import ssl, sqlite3, bz2, zlib' \
    && ${PREFIX}/bin/python${VERSION} -E -s -m compileall -q ${PREFIX}/lib >/dev/null || [ $? = 1 ]
