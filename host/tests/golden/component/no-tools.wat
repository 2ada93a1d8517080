;; call: send
(component)
