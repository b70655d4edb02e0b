#!/usr/bin/env bash
# Certificates for the TLS workloads (ECDSA P-256): one CA, one leaf for both sides with the name svc.test.
set -euo pipefail
mkdir -p "${1:?directory}"
cd "$1"
if [ -f both.pem ]; then exit 0; fi

key() { openssl ecparam -name prime256v1 -genkey -noout | openssl pkcs8 -topk8 -nocrypt -out "$1"; }

key ca.key
openssl req -x509 -new -key ca.key -subj /CN=test-ca -days 3650 -out ca.pem \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign
key leaf.key
openssl req -new -key leaf.key -subj /CN=svc.test -out leaf.csr
cat >extensions <<'END'
subjectAltName=DNS:svc.test,URI:spiffe://test/ns/default/sa/svc
extendedKeyUsage=serverAuth,clientAuth
basicConstraints=CA:FALSE
END
openssl x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 3650 \
    -extfile extensions -out leaf.pem 2>/dev/null
cat leaf.pem leaf.key >both.pem
