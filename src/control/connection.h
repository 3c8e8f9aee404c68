/* SPDX-License-Identifier: MIT */
/* connection - one client of a server, private to the layer. */
#ifndef CONTROL_CONNECTION_H
#define CONTROL_CONNECTION_H

#include "control/ctl.h"

/* Answers fd's requests until it ends, is silent for too long or sends what is no request, then calls handler->closed.
 * fd stays open. Its own thread. */
void connection_serve(int fd, const struct ctl_handler *handler);

/* Sends an error reply without waiting for anybody; whether it arrives does not matter. */
void connection_refuse(int fd, enum err_exit exit, const char *text);

#endif
