#!/bin/bash
# Installs the Debian packages of the mail servers, proxies, shells and the token that the tests start for themselves.
# Installing starts no daemon; where it may not install, it says why in one line and succeeds: those tests skip.
set -eu

packages=(
    postfix sasl2-bin libsasl2-modules # Postfix, smtp-sink, smtp-source and their AUTH
    dovecot-core dovecot-lmtpd dovecot-submissiond
    krb5-kdc krb5-admin-server krb5-user libsasl2-modules-gssapi-mit python3-gssapi # AUTH GSSAPI
    cyrus-imapd # LMTP with channel binding
    dante-server tinyproxy squid # SOCKS and CONNECT
    openssh-server openssh-client # ssh -D, for SOCKS4a
    nsd unbound ldnsutils # DNS, signed and not
    softhsm2 # a token without hardware
    opendkim # verifies signatures; its daemon is not started
    postgresql pgbouncer # the spool of many machines
    chromium # looks at the web pages
    git-email libmailtools-perl php-cli # call sendmail
    zsh fish groff-base # complete command lines, and format manual pages
)
export DEBIAN_FRONTEND=noninteractive

missing=()
for package in "${packages[@]}"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

if ! command -v apt-get >/dev/null; then
    echo "Tests of real servers will be skipped: apt-get is not here to install ${missing[*]}"
    exit 0
fi
if [ "$(id -u)" -ne 0 ]; then
    echo "Tests of real servers will be skipped: only root can install ${missing[*]}"
    exit 0
fi

# A package starts its daemon when it is installed unless this program says no (101: forbidden by policy).
policy=/usr/sbin/policy-rc.d
if ! { [ -x $policy ] && ! $policy postfix start >/dev/null 2>&1; }; then
    saved=
    if [ -e $policy ]; then
        saved=$(mktemp "$policy.XXXXXX")
        mv $policy "$saved"
    fi
    trap 'rm -f $policy; [ -z "$saved" ] || mv "$saved" $policy' EXIT
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod 755 $policy
fi

quietly() { # shows the output only of what fails
    local output
    output=$("$@" 2>&1) || { printf '%s\n' "$output" >&2; return 1; }
}
install_missing() {
    apt-get -o DPkg::Lock::Timeout=120 install --yes --no-install-recommends "${missing[@]}"
}

echo "Installing ${missing[*]} ..."
if ! install_missing >/dev/null 2>&1; then # no package lists yet, or too old ones
    quietly apt-get -o DPkg::Lock::Timeout=120 update
    quietly install_missing
fi
