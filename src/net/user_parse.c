/* SPDX-License-Identifier: Apache-2.0 */
/* The text of `user,hostfwd=...`; see net.h for its grammar. */
#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include "net/net.h"
#include "net/net_internal.h"

/* A piece of the text: not terminated. */
struct span {
	const char *s;
	size_t len;
};

/* Takes what comes before sep off the front of *rest, or all of it. */
static struct span take(struct span *rest, char sep)
{
	const char *p = memchr(rest->s, sep, rest->len);
	struct span part = { rest->s, p ? (size_t)(p - rest->s) : rest->len };
	size_t used = part.len + (p ? 1 : 0);

	rest->s += used;
	rest->len -= used;
	return part;
}

static bool is(struct span s, const char *word)
{
	return s.len == strlen(word) && memcmp(s.s, word, s.len) == 0;
}

static bool parse_addr(struct span s, uint32_t if_empty, struct in_addr *ret)
{
	char text[INET_ADDRSTRLEN];

	if (s.len == 0) {
		ret->s_addr = htonl(if_empty);
		return true;
	}
	if (s.len >= sizeof(text))
		return false;
	memcpy(text, s.s, s.len);
	text[s.len] = 0;
	return inet_pton(AF_INET, text, ret) == 1;
}

static bool parse_port(struct span s, uint16_t *ret)
{
	unsigned v = 0;

	if (s.len == 0 || s.len > 5)
		return false;
	for (size_t i = 0; i < s.len; i++) {
		if (s.s[i] < '0' || s.s[i] > '9')
			return false;
		v = v * 10 + (unsigned)(s.s[i] - '0');
	}
	if (v == 0 || v > 65535)
		return false;
	*ret = (uint16_t)v;
	return true;
}

/* tcp:127.0.0.1:2222-:22 */
static int parse_fwd(struct span value, struct net_user_fwd *ret, struct error *err)
{
	struct span rest = value, proto = take(&rest, ':'), host = take(&rest, '-'), guest = rest;
	struct span host_addr, guest_addr;
	int shown = value.len > 80 ? 80 : (int)value.len;
	struct net_user_fwd f = { 0 };

	if (is(proto, "udp"))
		f.udp = true;
	else if (!is(proto, "tcp"))
		return error_set(err, EINVAL, "hostfwd=%.*s: it must begin with tcp: or udp:", shown,
				 value.s);
	if (!memchr(host.s, ':', host.len) || !memchr(guest.s, ':', guest.len))
		return error_set(err, EINVAL,
				 "hostfwd=%.*s: the form is PROTO:[HOSTADDR]:PORT-[GUESTADDR]:PORT, as in "
				 "tcp:127.0.0.1:2222-:22",
				 shown, value.s);
	host_addr = take(&host, ':');
	guest_addr = take(&guest, ':');
	if (!parse_addr(host_addr, INADDR_LOOPBACK, &f.host_addr))
		return error_set(err, EINVAL,
				 "hostfwd=%.*s: the host address is not an IPv4 address like 127.0.0.1",
				 shown, value.s);
	if (!parse_addr(guest_addr, NET_USER_GUEST, &f.guest_addr))
		return error_set(err, EINVAL,
				 "hostfwd=%.*s: the guest address is not an IPv4 address like 10.0.2.15",
				 shown, value.s);
	if (!parse_port(host, &f.host_port))
		return error_set(err, EINVAL, "hostfwd=%.*s: the host port must be a number from 1 to 65535",
				 shown, value.s);
	if (!parse_port(guest, &f.guest_port))
		return error_set(err, EINVAL, "hostfwd=%.*s: the guest port must be a number from 1 to 65535",
				 shown, value.s);
	*ret = f;
	return 0;
}

static int copy_text(struct span value, char *to, size_t size, const char *name, struct error *err)
{
	if (!value.len || value.len >= size)
		return error_set(err, EINVAL, "network: %s= takes a name of 1 to %zu characters", name,
				 size - 1);
	memcpy(to, value.s, value.len);
	to[value.len] = 0;
	return 0;
}

int net_user_parse(const char *text, struct net_user_config *ret, struct error *err)
{
	struct span rest = { text, strlen(text) };
	struct net_user_config cfg = { 0 };

	if (!is(take(&rest, ','), "user"))
		return error_set(err, EINVAL, "network '%.80s': the known kind is user", text);
	while (rest.len) {
		struct span value = take(&rest, ','), key = take(&value, '=');

		if (is(key, "hostfwd")) {
			int rc;

			if (cfg.nr_fwd == NET_USER_MAX_FWD)
				return error_set(err, EINVAL, "network: more than %d hostfwd options",
						 NET_USER_MAX_FWD);
			rc = parse_fwd(value, &cfg.fwd[cfg.nr_fwd], err);
			if (rc)
				return rc;
			cfg.nr_fwd++;
		} else if (is(key, "restrict")) {
			if (!is(value, "on") && !is(value, "off"))
				return error_set(err, EINVAL, "network: restrict must be on or off");
			cfg.restricted = is(value, "on");
		} else if (is(key, "tftp")) {
			int rc = copy_text(value, cfg.tftp, sizeof(cfg.tftp), "tftp", err);

			if (rc)
				return rc;
		} else if (is(key, "bootfile")) {
			int rc = copy_text(value, cfg.bootfile, sizeof(cfg.bootfile), "bootfile", err);

			if (rc)
				return rc;
		} else {
			return error_set(
			    err, EINVAL,
			    "network: unknown option '%.*s': hostfwd, restrict, tftp and bootfile "
			    "are known",
			    key.len > 40 ? 40 : (int)key.len, key.s);
		}
	}
	*ret = cfg;
	return 0;
}
