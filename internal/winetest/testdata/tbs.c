// SPDX-License-Identifier: Apache-2.0

// A tbs.dll for Wine: Windows' TPM Base Services in front of a TPM on a socket. Each
// context is a connection of its own to TBS_ADDRESS, an IPv4 address and a port, where
// plain TPM commands are answered. What goes wrong is set in the environment:
//
//   TBS_RESULT  a TBS return code in hexadecimal, of each new context
//   TBS_BLOCK   command codes in hexadecimal, such as "120 153", that are blocked
//   TBS_LOG     a file with a boot log; without, there is none
//
// Build: x86_64-w64-mingw32-gcc -shared -o tbs.dll tbs.c -lws2_32

#include <winsock2.h>
#include <windows.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define API __declspec(dllexport) uint32_t WINAPI
enum {
	SUCCESS = 0,
	BLOCKED = 0x80280400,
	BAD_PARAMETER = 0x80284002,
	INSUFFICIENT_BUFFER = 0x80284005,
	IOERROR = 0x80284006,
	NO_EVENT_LOG = 0x80284011,
};

static uint32_t be32(const uint8_t *p) { return p[0] << 24 | p[1] << 16 | p[2] << 8 | p[3]; }

// From Windows' own environment, which a process may change as it runs.
static int env(const char *name, char *value, uint32_t size)
{
	DWORD n = GetEnvironmentVariableA(name, value, size);
	return n > 0 && n < size;
}

static int receive(SOCKET s, uint8_t *to, uint32_t n)
{
	while (n > 0) {
		int got = recv(s, (char *)to, n, 0);
		if (got <= 0)
			return 0;
		to += got, n -= got;
	}
	return 1;
}

API Tbsi_GetDeviceInfo(uint32_t size, uint32_t *info)
{
	if (size < 16)
		return BAD_PARAMETER;
	info[0] = 1, info[1] = 2, info[2] = 0, info[3] = 0; // structure version, TPM 2.0
	return SUCCESS;
}

API Tbsi_Context_Create(const void *params, void **context)
{
	char text[64], *port;
	WSADATA wsa;
	struct sockaddr_in to = { .sin_family = AF_INET };
	if (env("TBS_RESULT", text, sizeof text))
		return strtoul(text, 0, 16);
	if (!env("TBS_ADDRESS", text, sizeof text) || !(port = strchr(text, ':')) || WSAStartup(0x202, &wsa))
		return IOERROR;
	*port = 0;
	to.sin_addr.s_addr = inet_addr(text);
	to.sin_port = htons(atoi(port + 1));
	SOCKET s = socket(AF_INET, SOCK_STREAM, 0);
	if (s == INVALID_SOCKET || connect(s, (struct sockaddr *)&to, sizeof to)) {
		closesocket(s);
		return IOERROR;
	}
	int on = 1;
	setsockopt(s, IPPROTO_TCP, TCP_NODELAY, (char *)&on, sizeof on);
	*context = (void *)s;
	return SUCCESS;
}

API Tbsip_Submit_Command(void *context, uint32_t locality, uint32_t priority, const uint8_t *command, uint32_t size, uint8_t *response, uint32_t *capacity)
{
	SOCKET s = (SOCKET)context;
	char blocked[256], code[16];
	uint8_t header[10];
	if (size < sizeof header)
		return BAD_PARAMETER;
	sprintf(code, "%x", be32(command + 6));
	if (env("TBS_BLOCK", blocked, sizeof blocked) && strstr(blocked, code))
		return BLOCKED;
	if (send(s, (const char *)command, size, 0) != (int)size || !receive(s, header, sizeof header))
		return IOERROR;
	uint32_t n = be32(header + 2);
	if (n < sizeof header || n > *capacity)
		return INSUFFICIENT_BUFFER;
	memcpy(response, header, sizeof header);
	if (!receive(s, response + sizeof header, n - sizeof header))
		return IOERROR;
	*capacity = n;
	return SUCCESS;
}

API Tbsip_Context_Close(void *context)
{
	return closesocket((SOCKET)context) ? IOERROR : SUCCESS;
}

API Tbsi_Get_TCG_Log(void *context, uint8_t *log, uint32_t *capacity)
{
	char path[MAX_PATH];
	FILE *file;
	if (!env("TBS_LOG", path, sizeof path) || !(file = fopen(path, "rb")))
		return NO_EVENT_LOG;
	fseek(file, 0, SEEK_END);
	uint32_t n = ftell(file), room = *capacity;
	*capacity = n;
	rewind(file);
	uint32_t result = !log ? SUCCESS : n > room ? INSUFFICIENT_BUFFER : fread(log, 1, n, file) != n ? IOERROR : SUCCESS;
	fclose(file);
	return result;
}
