/* jobs.h — ending the threads that prepare images. */
#ifndef AM_IMAGE_JOBS_H
#define AM_IMAGE_JOBS_H

/* Wait for what the threads are at, and end them; queued jobs stay for am_image_wait. */
void am_image_shutdown(void);

#endif
